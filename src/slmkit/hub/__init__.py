"""The Hugging Face Hub: the one door for huggingface_hub and httpx.

catalog     curated small models (needs no network library)
select      which files of a repository are wanted (needs no network library)
faults      foreign exceptions and HTTP answers as errors of ours
transport   one HTTP session: headers, redirects, retries
client      what a repository holds at a commit
cache       the layout of the Hugging Face cache on disk
download    files into that cache, resumed across processes and checked
headers     of safetensors files, without their weights
hollows     GGUFs without their weights
"""
