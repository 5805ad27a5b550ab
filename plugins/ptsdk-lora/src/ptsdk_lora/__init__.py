"""LoRA, rsLoRA and DoRA for ptsdk, in files that PEFT reads and writes."""
