"""Packets for somebody who looks at them: which ones (`wish`), what is known of each (`packet`), the file
format that Wireshark reads (`pcapng`), and the stream of it under limits (`session`).

A tier finds the packets; see `kernel/capture.py`.
"""
