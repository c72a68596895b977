"""The tier on plain sockets: the same listeners and policy as the kernel tier, on asyncio, where BPF is not permitted."""
