"""What a report shows, worked out from records, before it has a form."""
