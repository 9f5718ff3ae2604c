"""Drawing responses from policies: a local transformers model, vLLM, an OpenAI-compatible server, a fake.

The generators are imported from their own modules, so that none needs what another one needs.
"""
