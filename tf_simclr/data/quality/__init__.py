"""What is wrong with images: broken ones, duplicates, a survey."""
