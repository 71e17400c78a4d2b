"""The supervisor's side: workers, link, journal, probes, admin API. Never on a request."""
