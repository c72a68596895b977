"""Facts for other systems. Each module says what facts it consumes; the data plane supplies them."""
