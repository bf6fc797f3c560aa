"""train_to_serve with the example training component: what the demo runs."""

from kfp_bento.components import train_wine_model
from kfp_bento.pipelines.train_to_serve import train_to_serve

train_wine_to_serve = train_to_serve(
    train_wine_model,
    description="Train a wine classifier, register it, and take it to a checked, promoted service.",
)
