"""Which backend serves: policies, health, regions, retries. Pure domain, no IO, no clock, no chance."""
