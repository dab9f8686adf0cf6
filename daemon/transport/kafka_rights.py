"""Rights that Kafka has no question for: told by asking for what cannot happen.

`describe_*` answers with our rights on topics, and on groups that have members (KIP-430). For a group that is new or
empty, and for a transactional id, it does not: who may describe an id need not be allowed to write it. A broker looks
at the rights before anything else, so a request that names nobody is refused for the right that is missing, or
because there is no such member or producer; either way nothing has changed.
"""

from __future__ import annotations

from kafka.admin import KafkaAdminClient, MemberToRemove
from kafka.errors import (
    ConcurrentTransactionsError,
    GroupAuthorizationFailedError,
    InvalidProducerIdMappingError,
    TransactionalIdAuthorizationFailedError,
    UnknownMemberIdError,
    for_code,
)
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer.transaction import AddOffsetsToTxnRequest

from daemon.transport.admin_client import coordinated

#: Kafka hands producer ids out from 0 upwards; this one is nobody's.
NOBODY = 2**63 - 1
#: What a broker says once it has found our right on the id: nobody has no producer, or, where the owner of the id is
#: just ending a transaction, come again.
LOOKED_AT_LATER = (InvalidProducerIdMappingError, ConcurrentTransactionsError, GroupAuthorizationFailedError)
#: The last version of AddOffsetsToTxn that means the same for all brokers.
REQUEST_VERSION = 3


def may_join(admin: KafkaAdminClient, group_id: str) -> bool:
    """Whether we may READ a group, which joining and committing take: asked by letting a stranger leave."""
    nobody = MemberToRemove(member_id="tickcast-preflight")
    try:
        coordinated(lambda: admin.remove_group_members(group_id, [nobody]))
    except GroupAuthorizationFailedError:
        return False
    except UnknownMemberIdError:
        pass
    return True


def may_write_as(admin: KafkaAdminClient, transactional_id: str, group_id: str) -> bool:
    """Whether we may WRITE a transactional id: asked by adding offsets to the transaction of no producer."""
    try:
        coordinated(lambda: admin._manager.run(_add_offsets_of_nobody, admin, transactional_id, group_id))
    except TransactionalIdAuthorizationFailedError:
        return False
    except LOOKED_AT_LATER:
        pass
    return True


async def _add_offsets_of_nobody(admin: KafkaAdminClient, transactional_id: str, group_id: str) -> None:
    coordinator = await admin._find_coordinator_id(transactional_id, CoordinatorType.TRANSACTION)
    request = AddOffsetsToTxnRequest(
        transactional_id=transactional_id,
        producer_id=NOBODY,
        producer_epoch=0,
        group_id=group_id,
        max_version=REQUEST_VERSION,
    )
    response = await admin._manager.send(request, node_id=coordinator)
    if response.error_code:
        raise for_code(response.error_code)
