"""A plugin as an author wrote it for the plugin API before the current one. It is kept, not updated:
when the API number rises, the sample of the last number takes its place."""
