"""One outside thing per file: sockets to origins, the GeoIP database, log files."""
