"""Yatai's BentoDeployment, with an image that is there or one that Yatai builds."""
