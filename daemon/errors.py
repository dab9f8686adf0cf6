"""The errors of tickcast, one family, each with its exit code.

Three questions decide the class. Is the *record* bad? Then it is no error at all but a dead letter, and the
loop goes on. Is the *world* away (broker, coordinator)? Then `retriable` is true and somebody tries again, with a
bound. Is *our state, setting or file* wrong? Then the process stops: corrupt state is worse than no forecast.

A message is one line: what happened, where, and what the operator can do about it.
"""


class TickcastError(Exception):
    """Something unexpected failed, or a shutdown had to abort; the root of the family."""

    exit_code = 1
    #: True where trying again can help without anybody changing anything.
    retriable = False


class SettingsError(TickcastError):
    """A setting or an argument is wrong; the message names the key, the value found and the value allowed."""

    exit_code = 2


class BundleError(TickcastError):
    """A model or bundle is missing, tampered with, not convertible, or fails its self-test."""

    exit_code = 3


class BrokerUnavailable(TickcastError):
    """No broker answered within the time allowed."""

    exit_code = 4
    retriable = True


class TopicError(TickcastError):
    """A topic is missing or its settings cannot keep our promises."""

    exit_code = 5


class AccessDenied(TickcastError):
    """The cluster refused our identity or rights, or is not to be trusted; retrying would only make a storm."""

    exit_code = 6


class Fenced(TickcastError):
    """A newer owner of our transactional or instance id exists; this process must end."""

    exit_code = 7


class TickFileError(TickcastError):
    """A tick file cannot be read as ticks; the message names file, line or column, and the remedy."""

    exit_code = 8


class TooManyDeadLetters(TickcastError):
    """The share of dead letters rose above `dead_letter_ratio_max`: a schema accident, not a bad tick."""

    exit_code = 10


class LocalBrokerError(TickcastError):
    """The development broker cannot be fetched, started or stopped."""

    exit_code = 11


class Stuck(TickcastError):
    """The loop, a commit or a close made no progress; the stacks of all threads are on standard error."""

    exit_code = 12


class TransactionFailed(TickcastError):
    """A transaction was not committed; its batch must be recovered from the last committed offsets."""

    retriable = True
