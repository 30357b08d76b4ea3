"""Read what a file's headers declare: its format, its length, its clock."""
