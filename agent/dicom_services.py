"""What the receiver serves beside C-STORE, put together from the agent's own functions."""

from __future__ import annotations

from firstread.agent.commitment import CommitmentDesk
from firstread.agent.config import Settings
from firstread.agent.querying import query_service
from firstread.agent.store.engine import Store
from firstread.agent.work_items import WorkItems
from firstread.integration.dicom.commitment import CommitmentReport
from firstread.integration.dicom.services import Caller, CommitmentService, Services
from firstread.integration.dicom.ups_scp import SERVED, UpsScp


def dicom_services(settings: Settings, store: Store, owner: str) -> Services:
    """The services of this agent's receiver."""
    desk = CommitmentDesk(settings, store, owner)

    def told(caller: Caller, report: CommitmentReport) -> None:
        from firstread.agent.commitment_asking import take_report

        take_report(settings, store, caller, report)

    subscribers = frozenset(one.ae_title for one in settings.subscribers)

    def named(calling_ae_title: str) -> bool:
        # Work items and queries give patients' names away: both are for nodes that the settings name.
        return settings.peer(calling_ae_title) is not None or calling_ae_title in subscribers

    return Services(
        served=named,
        handlers=dict.fromkeys(SERVED, UpsScp(WorkItems(settings, store), subscribers)),
        commitment=CommitmentService(desk.asked, desk.due, desk.answered, told),
        query=query_service(settings, store),
    )
