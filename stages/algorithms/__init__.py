"""Arrays in, arrays out: no files, no parameters, no DVC."""
