"""Jobs of ptsdk made of torchtune's configs."""
