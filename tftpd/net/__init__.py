"""UDP under Twisted: sockets, ports and sessions. Shared by the server and the client."""
