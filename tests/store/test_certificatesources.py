"""Where certificates are fetched from, with what opens it sealed."""

from pathlib import Path

import pytest

from marchproxy.model.errors import NotFound
from marchproxy.store.store import Store
from tests.certificates import signed


def test_it_is_kept_for_its_certificate_and_goes_with_it(tmp_path: Path) -> None:
    with Store.open(tmp_path, create=True) as store:
        with pytest.raises(NotFound):
            store.certificate_sources.keep("default", "web", {"kind": "vault"}, "open sesame")
        store.certificates.add("default", "web", signed())
        store.certificate_sources.keep("default", "web", {"kind": "vault"}, "open sesame")
        store.certificate_sources.keep("default", "web", {"kind": "infisical"}, "open again")
        [kept] = store.certificate_sources.every()
        assert (kept.cluster, kept.name, kept.document) == ("default", "web", {"kind": "infisical"})
        assert store.certificate_sources.secret(kept) == "open again"
        assert "open" not in repr(kept)
        assert not any(b"open again" in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        store.certificates.replace("default", "web", signed())
        assert store.certificate_sources.every()
        store.certificates.remove("default", "web")
        assert not store.certificate_sources.every()
        store.certificates.add("default", "web", signed())
        assert not store.certificate_sources.forget("default", "web")
