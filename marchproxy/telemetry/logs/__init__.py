"""Logs for other systems: records, what they look like on the wire, and sinks that bring them there.

The data plane offers records; nothing here asks for any. What cannot be delivered is counted.
"""
