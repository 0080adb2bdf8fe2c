"""Stochastic gradient descent on the marginal likelihood of images (Brubaker, Punjani & Fleet, CVPR 2015).

Others use `search` (`find_structure_by_sgd`, and `descended`, the iteration itself).
"""
