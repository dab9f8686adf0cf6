"""Judges forecasts against what happened: statistics, the backtest over files, and the pages that show both."""
