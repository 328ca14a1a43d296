"""What tests share: models, files and measures that they build themselves."""
