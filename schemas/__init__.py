"""The messages of tickcast: what producers send, what subscribers read, and how a refused tick is kept.

`Tick` enters on the ticks topic, `Forecast` leaves on the forecasts topic, `Score` on the scores topic where there is
one, and a dead letter is the raw record with
headers made by `dead_letter_headers`. `python -m schemas.generate` writes the JSON Schemas and the AsyncAPI document.
"""

from schemas.dead_letter import HEADER_PREFIX, Reason, dead_letter_headers
from schemas.forecast import SCHEMA_VERSION, Forecast, ForecastEncoder, ResetCause, number_texts, row_texts
from schemas.score import SCORE_VERSION, Score, encode_score
from schemas.tick import Rejected, Tick, TickDecoder

__all__ = [
    "HEADER_PREFIX",
    "SCHEMA_VERSION",
    "SCORE_VERSION",
    "Forecast",
    "ForecastEncoder",
    "Reason",
    "Rejected",
    "ResetCause",
    "Score",
    "Tick",
    "TickDecoder",
    "dead_letter_headers",
    "encode_score",
    "number_texts",
    "row_texts",
]
