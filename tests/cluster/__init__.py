"""Tests of three databases, three services and a load balancer, during failures of any of them."""
