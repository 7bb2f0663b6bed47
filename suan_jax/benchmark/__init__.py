"""How fast this machine trains, updates tables and feeds batches: suites of measurements, as rows of JSON."""
