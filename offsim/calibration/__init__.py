"""What a machine was measured to take: the schema of the file, the measurements and the fits."""
