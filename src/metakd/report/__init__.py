"""What a run found, who taught whom and what it cost, as one page that needs nothing but a browser."""
