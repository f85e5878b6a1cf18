"""Run all runs of a design, one after the other, and write the campaign's report.

**plan** creates the campaign, or resumes an interrupted one, and lists the runs that are still to do. **run** executes
the notebook once per run, in the order of the plan, one at a time. **reduce** writes the campaign's `index.html`, also
if a run failed. It fails if a run is missing, is INVALID, or missed an objective. Finished runs are kept.

To repeat the missing runs, trigger this DAG again with the same campaign.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.sdk import DAG, Context, Param, TriggerRule, task

from experiments.campaign import steps


class CampaignRun(PapermillOperator):
    """One run of a campaign by papermill: creates its directory before, and records its verdict after."""

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
    description="Run a design, then write the campaign's report",
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
            description=" ".join(
                [
                    "Which factors to vary, the repetitions and the objectives: a file in experiments/designs.",
                    *(f"Left out: {error}." for error in steps.unreadable()),
                ]
            ),
        ),
        "campaign": Param(
            None,
            type=["null", "string"],
            pattern=steps.CAMPAIGN,
            title="Campaign",
            description="The folder in the reports to write to; empty: the design's name. An existing campaign is "
            "resumed where it stopped.",
        ),
    },
):
    design, campaign = "{{ params.design }}", "{{ params.campaign or '' }}"

    @task
    def plan(design: str, campaign: str) -> list[dict[str, Any]]:
        """Create or resume the campaign; return the runs that are still to do."""
        return steps.planned(design, campaign)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def reduce(design: str, campaign: str) -> str:
        """Write the report; fail if a run is missing, invalid, or missed an objective."""
        return str(steps.reduced(design, campaign))

    runs = CampaignRun.partial(
        task_id="run",
        design=design,
        campaign=campaign,
        kernel_name="python3",
        # One slot, filled in the order of map_index, so that two sweeps cannot run at the same time.
        pool=steps.POOL,
        max_active_tis_per_dag=1,
        map_index_template="{{ task.title }}",
    ).expand_kwargs(plan(design, campaign))
    runs >> reduce(design, campaign)
