"""serve_model, with requests shifted in steps before the new release gets them all."""

from kfp_bento.components import deploy_bento, shift_requests
from kfp_bento.pipelines.credentials import with_record_key, with_service_token
from kfp_bento.pipelines.serve_model import serve_model, serve_steps
from kfp_bento.pipelines.signatures import in_order, own_inputs, pipeline_named, with_signature

STEPS = {"canary_steps": "steps", "canary_soak_seconds": "soak_seconds", "canary_gates": "gates"}


def canary_with(deploy, *, name: str):
    """Make the pipeline that shifts requests in steps, with a component of one's choice.

    Args:
        deploy: deploy_bento, or a component of one's own with the inputs that serve_with names,
            and the input artifact `after`.
        name: Name of the pipeline.

    Returns:
        A KFP pipeline, to be compiled, submitted or run with kfp.local.
    """
    served = own_inputs(serve_model)
    shifted = shift_requests.component_spec.inputs
    inputs = in_order({**served, **{key: shifted[inner] for key, inner in STEPS.items()}})

    def pipeline(**given):

        def deployed(*, image_location, roll_back_on_failure, fail_at_once, **wanted):
            canary = shift_requests(
                **wanted,
                # The step that built the bento has left its golden answers too.
                golden=wanted["bento"].task.outputs["golden"],
                **{inner: given[key] for key, inner in STEPS.items()},
            )
            canary.set_caching_options(False)
            with_record_key(canary, given["record_secret"])
            with_service_token(canary, given["service_token_secret"])
            return deploy(
                **wanted,
                image_location=image_location,
                roll_back_on_failure=roll_back_on_failure,
                fail_at_once=fail_at_once,
                after=canary.outputs["reports"],
            )

        serve_steps(deployed)(**{key: given[key] for key in served})

    summary = "Take models to a service in steps: a share of the requests first, checked each time."
    return pipeline_named(name)(with_signature(pipeline, inputs, name=name, summary=summary))


canary_release = canary_with(deploy_bento, name="canary-release")
