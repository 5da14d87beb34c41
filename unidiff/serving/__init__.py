"""Servers and chat front ends."""
