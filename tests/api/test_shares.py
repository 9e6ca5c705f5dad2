"""What a grant's record offers and the host cannot do yet is refused, not recorded and forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nvcore.api.errors import NotFoundError, NotSupportedError
from nvcore.api.grant import GrantRequest, Share
from nvcore.testing.host import HostKit
from nvcore.testing.toys import toy_client


@pytest.mark.parametrize("share", [Share("COPY0", weight=200), Share("COPY0", weight=0), Share("COPY0", timeslice_us=500)], ids=str)
def test_a_weight_or_timeslice_us_is_refused_and_takes_nothing(nvcore_host: Callable[..., HostKit], share: Share) -> None:
    offer, _ = toy_client("toy", "graphics")
    tenant = nvcore_host(offer).client("toy")
    before = tenant.context.ledger()
    for ask in (tenant.context.grant, tenant.grant.child):
        with pytest.raises(NotSupportedError, match="not built yet") as refused:
            ask(GrantRequest("heavy", vram=2 << 20, shares=(share,)))
        assert f"weight={share.weight}, timeslice_us={share.timeslice_us}" in str(refused.value.seen)
    assert tenant.context.ledger() == before


def test_a_share_with_the_defaults_is_granted_of_an_engine_that_is_there(nvcore_host: Callable[..., HostKit]) -> None:
    offer, _ = toy_client("toy", "graphics")
    context = nvcore_host(offer).client("toy").context
    grant = context.grant(GrantRequest("even", shares=(Share("COPY0"), Share("COPY1", 100, None))))
    assert grant.shares == (Share("COPY0"), Share("COPY1"))
    grant.release()
    with pytest.raises(NotFoundError):
        context.grant(GrantRequest("none", shares=(Share("NOSUCH0"),)))
