"""What a driver answered, written down and given again."""
