"""The peers: each takes JSON events, queues them, and has a consumer count every one."""
