"""Carry out a design, one run after another.

**plan** opens the campaign, or takes up one that was cut off, and names the runs that are due. **run** executes the
notebook once for each, in the order of the plan, one at a time. **reduce** writes the campaign's `index.html` and fails
if a run is missing, INVALID, or missed an objective; it does so even when a run failed, and what was finished is kept.

To repeat what is missing, trigger again with the same campaign.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.sdk import DAG, Context, Param, TriggerRule, task

from experiments.campaign import steps


class CampaignRun(PapermillOperator):
    """A run of a campaign, by papermill: its directory is made before, and its verdict entered after."""

    template_fields = (*PapermillOperator.template_fields, "design", "campaign")

    def __init__(self, *, design: str, campaign: str, index: int, title: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.design = design
        self.campaign = campaign
        self.index = index
        self.title = title

    def execute(self, context: Context) -> None:
        """Execute the notebook."""
        with steps.carried_out(self.design, self.campaign, self.index) as run_dir:
            self.output_nb = str(run_dir / "executed.ipynb")
            self.parameters = {**(self.parameters or {}), "run_dir": str(run_dir)}
            super().execute(context)


with DAG(
    dag_id="emostream_sweep",
    description="A design's runs in their order, then the campaign's report",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"retries": 0},
    tags=["emostream"],
    params={
        "design": Param(
            "smoke",
            type="string",
            enum=steps.designs(),
            title="Design",
            description="What to vary, how often, and the objectives: a file of experiments/designs.",
        ),
        "campaign": Param(
            None,
            type=["null", "string"],
            pattern=steps.CAMPAIGN,
            title="Campaign",
            description="The folder of reports/ to write into; empty: the design's name. A campaign that is there "
            "already is taken up where it stopped.",
        ),
    },
):
    design, campaign = "{{ params.design }}", "{{ params.campaign or '' }}"

    @task
    def plan(design: str, campaign: str) -> list[dict[str, Any]]:
        """Open the campaign; return the runs that are due."""
        return steps.planned(design, campaign)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def reduce(design: str, campaign: str) -> str:
        """Write the report; fail if something is not as it should be."""
        return str(steps.reduced(design, campaign))

    runs = CampaignRun.partial(
        task_id="run",
        design=design,
        campaign=campaign,
        kernel_name="python3",
        # One slot, filled in the order of map_index; and no second sweep beside this one.
        pool=steps.POOL,
        max_active_tis_per_dag=1,
        map_index_template="{{ task.title }}",
    ).expand_kwargs(plan(design, campaign))
    runs >> reduce(design, campaign)
