"""Source units: cutting a sample into units, and finding the unit of each prompt position."""
