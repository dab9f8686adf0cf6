"""The pure core: records in, forecasts and dead letters out.

Nothing below this folder reads a clock, a random source, the environment, a file, the network or a global. Time
arrives in the records, settings in the constructors, results leave as values; imports are the standard library,
numpy and `schemas` only, which a test holds.
"""
