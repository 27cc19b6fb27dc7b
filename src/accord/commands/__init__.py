"""What the commands of the map do, one file each, imported when called."""
