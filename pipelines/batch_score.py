"""A bento asked about all rows of a table, in shards side by side."""

from kfp import dsl

from kfp_bento.components import collect_batch, import_bento, plan_batch, predict_shard
from kfp_bento.pipelines.credentials import with_record_key, with_storage_credentials
from kfp_bento.pipelines.signatures import pipeline_named


def batch_score_with(*, parallelism: int, name: str):
    """Make the pipeline that scores a table.

    Args:
        parallelism: Most shards that run at the same time; 0 is no limit.
        name: Name of the pipeline.

    Returns:
        A KFP pipeline, to be compiled, submitted or run with kfp.local.
    """

    @pipeline_named(name)
    def score(
        bento_uri: str,
        input_uri: str,
        output_uri: str,
        bento_sha256: str = "",
        input_format: str = "",
        output_format: str = "",
        inputs: list = [],  # noqa: B006 - KFP wants the defaults in the signature
        keep: list = ["*"],  # noqa: B006
        api: str = "",
        on_error: str = "fail",
        batch_rows: int = 0,
        params: dict = {},  # noqa: B006
        shards: int = 4,
        workers: int = 0,
        storage_secret: str = "kfp-bento-storage",
        record_secret: str = "kfp-bento-records",
    ):
        """Take a bento in, plan the batch, ask about its shards side by side, write the manifest.

        Args:
            bento_uri: Archive of the bento, from export_bento or BentoML.
            input_uri: A CSV, Parquet or JSONL file, or a folder of them.
            output_uri: A folder for the parts, their records and manifest.json.
            bento_sha256: What the archive's SHA-256 has to be; empty takes what was recorded.
            input_format: csv, parquet or jsonl; empty takes what the names of the files say.
            output_format: csv, parquet or jsonl; empty takes that of the input.
            inputs: Columns that the model gets, in its order, where its signature names none;
                empty gives it all.
            keep: Columns of the input that stand before the predictions; ["*"] keeps all.
            api: The API that answers: its name, its path, or one of several models; empty where
                there is one only.
            on_error: fail ends the run at a row that the model refuses; row gives that row an
                error.
            batch_rows: Rows of one request; 0 takes what suits the number of columns.
            params: The model's parameters, or other arguments of the API.
            shards: Tasks that share the rows, at most.
            workers: Processes of the bento in each task; 0 takes one for each processor.
            storage_secret: Secret with the credentials of the storage; may be absent.
            record_secret: Secret whose `key` (32 characters or more) seals the records that steps
                read of each other; may be absent.
        """
        bento = import_bento(uri=bento_uri, sha256=bento_sha256)
        bento.set_caching_options(False)  # what lies at an address may change
        with_storage_credentials(bento, storage_secret)
        with_record_key(bento, record_secret)

        plan = plan_batch(
            bento=bento.outputs["bento"],
            input_uri=input_uri,
            api=api,
            inputs=inputs,
            keep=keep,
            input_format=input_format,
            output_format=output_format,
            on_error=on_error,
            batch_rows=batch_rows,
            params=params,
            shards=shards,
        )
        plan.set_caching_options(False)
        with_storage_credentials(plan, storage_secret)
        with_record_key(plan, record_secret)

        with dsl.ParallelFor(
            plan.outputs["Output"], parallelism=parallelism, name="Shards side by side"
        ) as shard:
            part = predict_shard(
                bento=bento.outputs["bento"],
                plan=plan.outputs["plan"],
                shard=shard,
                input_uri=input_uri,
                output_uri=output_uri,
                workers=workers,
            )
            part.set_caching_options(False)  # its own record says whether it is done
            with_storage_credentials(part, storage_secret)
            with_record_key(part, record_secret)

        collected = collect_batch(
            plan=plan.outputs["plan"],
            output_uri=output_uri,
            part_rows=dsl.Collected(part.output),
        )
        collected.set_caching_options(False)
        with_storage_credentials(collected, storage_secret)
        with_record_key(collected, record_secret)

    return score


batch_score = batch_score_with(parallelism=8, name="batch-score")
