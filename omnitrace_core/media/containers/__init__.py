"""What a media file says of itself: its format, its length, its clock."""
