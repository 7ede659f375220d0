"""What the daemon is doing, for people and for Prometheus; off unless configured.

running.py    what runs in a process now, as a value that goes over a pipe
asking.py     a question to a worker and its answer
counts.py     plain numbers, fed by reports
boots.py      the requests of a client as a timeline with a verdict
history.py    what ended of late
telling.py    all of it as JSON
metrics.py    all of it for Prometheus
site.py       the web pages
service.py    puts these together
"""
