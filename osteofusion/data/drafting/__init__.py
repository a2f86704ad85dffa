"""Draft a manifest by looking at the data: `osteofusion manifest init`."""

from osteofusion.data.drafting.draft import Draft, draft_manifest

__all__ = ["Draft", "draft_manifest"]
