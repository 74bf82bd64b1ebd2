"""Distillation of a context into an adapter: the student learns to play without it as the teacher plays with it."""
