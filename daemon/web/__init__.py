"""The live page: what a subscriber sees of ticks and forecasts, shown in a browser.

Three steps, each in its own module: `follow` reads the topics, `board` and `listing` keep what was seen within bounds,
`frames` decides what a page is sent and when. `server` puts them behind HTTP, `guard` says who may ask and what for.
"""
