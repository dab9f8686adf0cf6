"""What `tickcast state`, `deadletters` and `audit` do, behind their commands."""
