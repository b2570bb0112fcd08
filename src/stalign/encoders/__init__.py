"""Encoders of images and genes: one name each, with licence, access and input known before anything is downloaded."""

from __future__ import annotations

from stalign.encoders.access import fetch
from stalign.encoders.card import Card
from stalign.encoders.contract import check
from stalign.encoders.loading import load
from stalign.encoders.registry import get, register
from stalign.encoders.registry import table as list

__all__ = ["Card", "check", "fetch", "get", "list", "load", "register"]
