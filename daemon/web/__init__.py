"""The live page: what a subscriber sees of ticks and forecasts, shown in a browser.

The transport's follower reads both topics. `board` and `listing` keep what was seen within bounds, `judged` holds the
forecasts against what came, `frames` decides what a page is sent and when. `server` puts them behind HTTP, `guard` says
who may ask and what for, `files` holds `static/`, the page itself, whose parts `app.js` joins.
"""
