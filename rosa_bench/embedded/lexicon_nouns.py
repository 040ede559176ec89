"""The nouns of the embedded language: a taxonomy of three levels, gendered people, names, places and contents.

``word/plural`` gives an irregular plural, ``word:m`` or ``word:f`` a gender. A line of the taxonomy reads
``top > mid @topic: leaves``; the topic ``any`` belongs to every topic.
"""

from __future__ import annotations

TOPICS_MATCHED = ("kitchen", "school", "farm", "office")
TOPICS_MISMATCHED = ("harbour", "hospital", "theatre", "workshop")
TOPICS = TOPICS_MATCHED + TOPICS_MISMATCHED

TAXONOMY = """
person > cook @kitchen: chef baker caterer pastrycook brewer
person > servant @kitchen: butler:m maid:f waiter:m waitress:f barman/barmen:m
person > teacher @school: tutor professor lecturer governess:f schoolmaster:m
person > pupil @school: freshman/freshmen:m schoolgirl:f schoolboy:m prefect novice
person > farmer @farm: shepherd:m dairyman/dairymen:m milkmaid:f rancher beekeeper
person > neighbour @farm: villager squire:m lodger settler cottager
person > clerk @office: typist cashier archivist bookkeeper registrar
person > manager @office: director supervisor chairman/chairmen:m chairwoman/chairwomen:f treasurer
person > sailor @harbour: captain boatswain helmsman/helmsmen:m deckhand fisherman/fishermen:m
person > official @harbour: harbourmaster coastguard inspector warden pilot
person > doctor @hospital: surgeon dentist oculist anaesthetist paediatrician
person > carer @hospital: nurse midwife/midwives:f matron:f orderly paramedic
person > performer @theatre: actor:m actress:f comedian acrobat ballerina:f
person > musician @theatre: violinist drummer pianist flautist cellist
person > craftsman/craftsmen @workshop: carpenter blacksmith potter mason tinsmith
person > mechanic @workshop: plumber welder electrician locksmith fitter
animal > dog @any: spaniel terrier poodle beagle collie mastiff
animal > bird @any: robin sparrow owl crow heron magpie
animal > rodent @kitchen: mouse/mice rat hamster
animal > insect @school: beetle moth wasp ladybird grasshopper
animal > horse @farm: pony mare:f stallion:m foal
animal > cow @farm: heifer:f calf/calves jersey
animal > pig @farm: piglet sow:f boar:m hog
animal > cat @office: tabby tomcat:m kitten moggy
animal > fish/fishes @harbour: herring sardine pike eel minnow shark
animal > mollusc @harbour: oyster mussel clam squid whelk
animal > reptile @hospital: lizard tortoise gecko
animal > monkey @theatre: baboon chimpanzee macaque
animal > goose/geese @workshop: gander:m gosling greylag
object > pan @kitchen: skillet saucepan wok casserole
object > knife/knives @kitchen: cleaver breadknife/breadknives dagger
object > dish @kitchen: platter bowl saucer tureen
object > cake @kitchen: muffin brownie sponge gingerbread
object > fruit @kitchen: apple pear cherry plum peach
object > book @school: atlas dictionary textbook thesaurus almanac
object > pen @school: biro quill crayon
object > desk @school: bureau lectern workbench
object > game @school: crossword chessboard jigsaw
object > cart @farm: wagon barrow haywain
object > vegetable @farm: carrot turnip potato/potatoes cabbage leek
object > basket @farm: hamper pannier punnet creel
object > fence @farm: hedge paling railing
object > machine @office: printer copier shredder computer
object > letter @office: memo invoice postcard circular
object > folder @office: binder dossier portfolio
object > chair @office: stool armchair rocker bench
object > boat @harbour: yacht dinghy ferry canoe trawler
object > rope @harbour: cable hawser mooring
object > lamp @harbour: lantern beacon floodlight
object > box @harbour: crate chest trunk carton
object > instrument @hospital: scalpel syringe thermometer stethoscope
object > bandage @hospital: plaster sling tourniquet
object > bed @hospital: cot stretcher bunk
object > medicine @hospital: pill tablet ointment syrup
object > costume @theatre: cloak gown tunic robe
object > mask @theatre: visor domino blindfold
object > ticket @theatre: voucher wristband coupon
object > violin @theatre: viola fiddle rebec
object > tool @workshop: hammer chisel wrench mallet spanner
object > vehicle @workshop: lorry van tractor motorcycle
object > engine @workshop: motor turbine dynamo
object > nail @workshop: rivet tack staple
object > hat @any: bonnet beret cap turban
object > bag @any: satchel rucksack purse suitcase
object > coat @any: jacket parka anorak
object > picture @any: portrait sketchbook mural poster
"""

GENDERED = """
king:m queen:f prince:m princess:f duke:m duchess:f father:m mother:f uncle:m aunt:f boy:m girl:f man/men:m
woman/women:f husband:m wife/wives:f brother:m sister:f son:m daughter:f nephew:m niece:f monk:m nun:f wizard:m
witch:f hero/heroes:m heroine:f host:m hostess:f widower:m widow:f groom:m bride:f lad:m lass:f lord:m lady:f
grandfather:m grandmother:f bachelor:m spinster:f gentleman/gentlemen:m gentlewoman/gentlewomen:f steward:m
stewardess:f baron:m baroness:f emperor:m empress:f heir:m heiress:f landlord:m landlady:f policeman/policemen:m
policewoman/policewomen:f salesman/salesmen:m saleswoman/saleswomen:f stepfather:m stepmother:f godfather:m
godmother:f grandson:m granddaughter:f
"""

COMMON_PEOPLE = """
child/children visitor stranger guest traveller student lawyer judge soldier tourist driver singer poet writer artist
thief/thieves burglar beggar pilgrim witness customer shopkeeper librarian engineer scientist gardener porter guard
"""

NAMES_M = """
Adam Albert Arthur Basil Cedric Conrad Daniel Edgar Edwin Felix Gareth George Harold Hector Henry Hugo Isaac Jasper
Julian Kevin Lewis Magnus Martin Nigel Oliver Oscar Patrick Peter Quentin Ralph Roland Rupert Simon Stephen Terence
Thomas Victor Walter
"""

NAMES_F = """
Agatha Agnes Alice Amelia Beatrice Bridget Camilla Clara Daphne Dorothy Edith Eleanor Esther Fiona Flora Gertrude Grace
Harriet Helen Imogen Irene Isabel Josephine Judith Laura Lydia Mabel Margaret Martha Matilda Miriam Nancy Olivia
Penelope Rosalind Sophia Ursula Winifred
"""

MASS = """
flour rice sugar butter milk honey salt vinegar mustard chalk ink paper glue lacquer straw hay wheat barley wool manure
software stationery mail cardboard tar sand seaweed canvas gauze plasma iodine gelatine music scenery makeup velvet
timber steel cement varnish sawdust furniture luggage jewellery water
"""

CONTENTS = """
claim rumour report idea belief tale theory suspicion hint complaint announcement warning message excuse argument
bulletin confession statement suggestion prophecy/prophecies
"""

EVENTS = """
storm blizzard noise fire flood accident explosion earthquake blunder misfortune scandal defeat eclipse blackout
avalanche quarrel collapse drought riot
"""

PLACES = """
kitchen: in the kitchen|in the pantry|at the stove|in the cellar|in the restaurant|at the sink
school: in the classroom|in the library|in the schoolyard|at the school|in the gymnasium|in the canteen
farm: in the barn|in the meadow|on the farm|in the orchard|in the stable|at the well
office: in the office|in the lobby|in the boardroom|in the corridor|at the counter|in the mailroom
harbour: in the harbour|on the pier|on the deck|on the beach|at the lighthouse|in the dockyard
hospital: in the hospital|in the clinic|in the ward|in the waiting room|at the pharmacy|in the laboratory
theatre: in the theatre|on the stage|in the dressing room|in the balcony|in the foyer|at the rehearsal
workshop: in the workshop|in the garage|in the foundry|in the shed|at the forge|in the factory
any: in the garden|in the street|in the park|at the market|at the station|in the village
"""

SYNONYM_NOUNS = """
physician=doctor seaman/seamen=sailor hound=dog vessel=boat cord=rope volume=book seat=chair note=letter barrier=fence
implement=tool boss=manager robber=thief kid=child caller=visitor outsider=stranger sightseer=tourist shopper=customer
author=writer trooper=soldier onlooker=witness voyager=traveller sack=bag instructor=teacher illustration=picture
carriage=cart bookworm=student attorney=lawyer vocalist=singer container=box
"""
