"""What several stages share; nothing in here is a stage."""
