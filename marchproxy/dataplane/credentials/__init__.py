"""Whether a credential opens a service: tokens by their hash, JWTs by their signature.

* A **book** (`book.py`) is everything needed to judge a credential at a given moment, without I/O and clock.
* A **keeper** (`keeper.py`) makes books from the store, fetches the keys of JWKS addresses, and writes down
  which tokens are used.
* A **limiter** (`limiter.py`) counts failures of each source, and says how long it has to wait.

JWS is read here and not by a library: what the appliance accepts is one compact form, six algorithms and
four claims, which is less code than what would have to be switched off, and brings no further package onto
the box. Which algorithm a JWT has is the service's word and never its header's: `signatures.py` makes the
verifier before any JWT is seen, from a secret or from public keys, which are different types.
"""
