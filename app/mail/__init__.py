"""Mails: their texts, their form, and how they are handed to a mail server."""
